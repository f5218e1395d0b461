"""Point-in-time copies (S5) as people know them: what was copied from what and when, schedules, retention, refusals.

Everything here decides and nothing here acts: the catalogue is built from documents in the pool, times are handed in, and
`controller/` carries out what comes out.
"""
