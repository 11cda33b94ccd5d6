-- Status codes: the first number of every reply. lua/README.md says what each means; _status.py mirrors it.
local OK, FULL_JOBS, FULL_BYTES, TOO_LARGE, SEALED = 1, 2, 3, 4, 5
local WAITERS, GENERAL, REPEATED, UNDECLARED, STRANGER = 6, 7, 8, 9, 10
local BAD_FORMAT, PAUSED, ABSENT, CLASH = 11, 12, 13, 14
