#version 330
// Depth only, with the holes of cut-out textures.

#ifdef HOLES
uniform sampler2D materials;
uniform sampler2DArray textures;

in vec2 texture_uv;
flat in int triangle;
#endif

void main() {
#ifdef HOLES
    int row_triangles = textureSize(materials, 0).x / 2;
    float layer = texelFetch(materials, ivec2(2 * (triangle % row_triangles), triangle / row_triangles), 0).a;
    if (texture(textures, vec3(texture_uv, layer)).a < 0.5) discard;
#endif
}
