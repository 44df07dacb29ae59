"""From a plan to the files that start it elsewhere: a plan in, texts out."""
