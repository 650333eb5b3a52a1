"""LGDN with an answer head (VideoQA, section 4.3 and Table 7 of the LGDN paper)."""
