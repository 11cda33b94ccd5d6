"""
What those who look after a server need beside the queues themselves: rules for its users, a diagnosis, sizing,
thresholds. Values in, values out where it can be; what talks to a server does so through `Server` and `Queue`.

The command line shows it.
"""
