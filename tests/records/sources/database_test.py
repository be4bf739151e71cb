import pytest

from jaxcoder.errors import UserError
from jaxcoder.records.sources.database import split_uri


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://ann:geheim@host/omop",
        "postgresql://host/omop?password=geheim",
        "postgresql://host/omop?schema=cdm&pass%77ord=geheim",
        "postgresql://host/omop?sslp%61ssword=geheim",
        "postgresql://host/omop?oauth_client_%53ecret=geheim",
    ],
)
def test_a_password_is_refused_however_it_is_written_and_not_shown(uri):
    with pytest.raises(UserError, match="holds a password.*put it in PGPASSWORD") as error:
        split_uri(uri)
    assert "geheim" not in str(error.value)


def test_other_parameters_are_parted_and_decoded():
    uri = "postgresql://ann@host/omop?schema=cdm%2Cvocabulary&passfile=/home/ann/pass"
    parameters = {"schema": "cdm,vocabulary", "passfile": "/home/ann/pass"}
    assert split_uri(uri) == ("postgresql://ann@host/omop", parameters)
