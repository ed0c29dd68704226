"""Each option counts, each signal ends what it should in time, and no worker is lost or left."""
