"""What a run's folder remembers.

`tasks` names artifacts, `ledger` has a row for each outcome, `index` and `account` read it, `lock` and `standing` say
who is at work and how it ended, `spool` holds lists on disk.
"""
