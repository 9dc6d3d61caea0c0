"""From zone files and a tile index to pieces, units and parts. Reads no pixel."""
