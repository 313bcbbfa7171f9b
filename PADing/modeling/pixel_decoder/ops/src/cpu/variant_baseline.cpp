#include "variant_prelude.h"
#define MSDA_BYTES 16
#define MSDA_VARIANT baseline
#define MSDA_VARIANT_NAME "baseline"
#include "variant_body.h"
