"""Downloaded data sets, checked against what was published, as feature folders that everything else reads."""
