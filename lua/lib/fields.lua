-- The fields of `state` (lua/README.md) but for its limits and its producers, with their first values. `about` is
-- longer than hash-max-listpack-value, so the hash is a hash table from the start: a field costs the same wherever it
-- stands and however many producers there are.
local FIELDS = { 'format', 1, 'gate', 0, 'cost', 0, 'created_at', 0, 'bytes', 0, 'dead_bytes', 0, 'dead_jobs', 0,
  'tail0', 0, 'tail1', 0, 'tail2', 0, 'tail3', 0, 'tail4', 0, 'tail5', 0, 'tail6', 0, 'tail7', 0,
  'head0', 0, 'head1', 0, 'head2', 0, 'head3', 0, 'next_event', 0, 'expiring', 0,
  'turn', '', 'turn_at', 0, 'turn_bytes', 0, 'paused_at', 0, 'paused_by', '', 'sealed_at', 0, 'sealed_by', '',
  'drain_at', 0, 'drain_base', 0, 'drain_rate', 0, 'drain_seen', 0,
  'acked', 0, 'buried', 0, 'cancelled', 0, 'expired', 0, 'dropped', 0, 'purged', 0, 'retried', 0, 'released', 0,
  'deliveries', 0, 'leases_expired', 0, 'leases_lost', 0, 'missing', 0, 'rejected_jobs', 0, 'rejected_bytes', 0,
  'rejected_job_bytes', 0, 'rejected_sealed', 0, 'rejected_waiters', 0, 'producer', 0,
  'purge_mark', '', 'purge_number', 0, 'purge_last', 0, 'purge_took', '',
  'about', 'The state of a boundq queue. Fields: lua/README.md of its source; p1, p2, ...: producers, and their last call.' }
