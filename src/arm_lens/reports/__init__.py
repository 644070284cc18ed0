"""Pages and figure folders from results."""
