"""
Workers: what takes jobs out of queues and runs them.

    worker.py      Worker: claims, runs, settles, in threads and on an event loop
    keeper.py      who extends the leases of what runs
    slots.py       how many jobs run at once, and whose turn it is
    isolate.py     child processes that plain functions run in, so that they can be killed
    nursery.py     the process that starts and kills them
    child.py       what they do
    frames.py      how these three talk
    health.py      the file from which `boundq health` tells whether a worker is well
    reload.py      the process that starts a worker anew when its source changes
"""
