"""The ledger: jobs that outlive the process that took them.

`states` says what a job is, `store`, `leases` and `housekeeping` what is done to the table (operations of
`media.database`), `runner` does the work, `handlers` what each kind of job is.
"""
