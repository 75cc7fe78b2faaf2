"""From prints of voices or faces to people: how alike one person's are (`likeness`), and who is whom (`linking`)."""
