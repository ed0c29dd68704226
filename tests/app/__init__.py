"""An app answers what it was asked, its own failures too, and keeps to its limits and settings."""
