"""Motion as pictures: `avatar` draws a face that moves, `film` puts faces side by side with sound."""
