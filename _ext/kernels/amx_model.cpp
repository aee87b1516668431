// amx_model.cpp: the kernels of amx.cpp for tests, see there.
#define LP_MODEL
#include "kernels/amx.cpp"
