"""Small widgets that draw plain values line by line and send as few bytes as they can."""
