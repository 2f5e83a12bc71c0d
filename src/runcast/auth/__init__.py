"""From a token to a grant: who asks, what they may do, and until when. Pure, like core."""
