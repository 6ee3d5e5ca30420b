"""Everything that meets the MRML scene. No torch."""
