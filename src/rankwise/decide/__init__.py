"""Pure choice: priced candidates -> Plan."""
