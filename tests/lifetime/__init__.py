"""Nothing outlives the app: who cancels whom, what closes when, what a shutdown waits for."""
