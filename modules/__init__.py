"""How secrets, keys and schedules are declared: constructs that check themselves at synth."""
