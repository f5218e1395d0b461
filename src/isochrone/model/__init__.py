"""The words of the field as small types: times, tracks, records, states, errors. Imports nothing of ours."""
