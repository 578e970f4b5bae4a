"""Reports: one page, one style sheet, one kind of drawing for every step."""
