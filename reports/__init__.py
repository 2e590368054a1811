"""Ways to show a record. Everything here is a pure function of the record and works without torch."""
