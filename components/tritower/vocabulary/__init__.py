"""Shared reference data about jobs: titles with their occupation, skills, places, abbreviations and levels.

A ground-floor package: no step, no kfp, and nothing heavy is imported until a table is asked for. Every function is
cached, so that a caller may ask again for free; treat what they return as read-only.

    tokenise, normalise, singular, key, employer_key    one way of cutting and folding text, shared by all rooms
    titles, other_titles, skills, descriptions, title_tokens    Arrow tables from O*NET, SOC, ESCO, IPOD and two open lists
    places, coordinates, regions, companies, abbreviations, misspellings, seniorities,
    employment_types, qualifications, fields_of_work, tools, title_heads, not_titles, stop_words    written for this project

Sources and licences: ATTRIBUTION.md. The tables are rebuilt by `python -m tritower.vocabulary build --source DIR`.
"""

from tritower.vocabulary.tables import (
    LEVELS,
    Place,
    abbreviations,
    companies,
    coordinates,
    descriptions,
    employment_types,
    fields_of_work,
    misspellings,
    not_titles,
    other_titles,
    places,
    qualifications,
    regions,
    seniorities,
    skills,
    stop_words,
    title_heads,
    title_tokens,
    titles,
    tools,
)
from tritower.vocabulary.text import Token, employer_key, key, normalise, singular, tokenise, words

__all__ = [
    "LEVELS",
    "Place",
    "Token",
    "abbreviations",
    "companies",
    "coordinates",
    "descriptions",
    "employer_key",
    "employment_types",
    "fields_of_work",
    "key",
    "misspellings",
    "normalise",
    "not_titles",
    "other_titles",
    "places",
    "qualifications",
    "regions",
    "seniorities",
    "singular",
    "skills",
    "stop_words",
    "title_heads",
    "title_tokens",
    "titles",
    "tokenise",
    "tools",
    "words",
]
