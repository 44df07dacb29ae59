"""What a merge takes, beside PEFT's and beside copying the files."""
