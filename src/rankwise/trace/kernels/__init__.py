"""Stand-ins for what `meta` has no kernel for: each saves the tensors that the real kernel saves and makes the
temporaries that the real kernel makes.
"""
