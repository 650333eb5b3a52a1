"""Where the files of a library lie: in a folder of this computer, or in an object store."""
