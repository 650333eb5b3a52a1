"""What tests share: tiny models, toy libraries, servers, browsers."""
