"""Test suite; a package so that every test imports the oracle and the packet cases by one name."""
