"""Many tenants on one base: who they are, which adapter each has, and a server that carries them all."""
