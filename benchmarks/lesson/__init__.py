"""The lesson's claims as eight experiments that could have come out the other way."""
