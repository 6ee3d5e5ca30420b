"""SSLPanels: what stands behind the windows of both modules. Qt and the scene, no computing, no torch."""
