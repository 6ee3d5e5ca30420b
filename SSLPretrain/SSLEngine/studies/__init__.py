"""Exams: read, understood, checked."""
