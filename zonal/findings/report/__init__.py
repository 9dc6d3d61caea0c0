"""What an output holds, as one page."""
