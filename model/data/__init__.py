"""What training and evaluation read: photos, films spliced from them, data sets of videos."""
