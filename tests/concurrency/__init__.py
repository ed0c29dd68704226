"""Cleanup has its time and no more; contexts, scopes and nurseries are left as they were found."""
