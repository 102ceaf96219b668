"""From the last map to class scores."""
