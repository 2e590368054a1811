"""Search for the output event that tells two neighbouring data sets apart best."""
