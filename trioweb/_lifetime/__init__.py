"""The app's nursery, the requests in it, and what ends when: nothing outlives the app."""
