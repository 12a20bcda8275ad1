"""What panes and lines say about layers, as plain text: no widget, no colour."""
