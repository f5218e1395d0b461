"""The data mover: receive, stage, form, harden, commit (S4, S10; design section 4). Runs where the secondaries are."""
