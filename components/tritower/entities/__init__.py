"""The pre-trained job NER: titles, skills, seniority, companies, places, employment types and qualifications in short texts."""
