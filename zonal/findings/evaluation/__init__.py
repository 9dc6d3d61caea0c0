"""How well a table's features predict census attributes."""
