"""
Workers: what takes jobs out of queues and runs them.

    worker.py      Worker: claims, runs, settles, in threads and on an event loop
    keeper.py      who extends the leases of what runs
    slots.py       how many jobs run at once, and whose turn it is
    isolate.py     child processes that plain functions run in, so that they can be killed
    nursery.py     the process that starts and kills them
    child.py       what they do
    frames.py      how these three talk
"""
