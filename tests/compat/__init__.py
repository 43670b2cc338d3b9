"""Artefacts of revision 6b53b91, and the test that the program still reads them."""
