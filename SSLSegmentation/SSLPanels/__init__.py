"""SSLPanels: what both modules' windows share. Qt and the scene, no computing, no torch."""
