"""What a knowledge base keeps in the database: its state, and for each generation chunks and a catalogue."""
